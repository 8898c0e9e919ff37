;; A verdict that there is not.
;; fails in: run
;; says: discriminant
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.store8 (i32.const 164) (i32.const 9))
  (i32.const 160))
