;; A reason that is no UTF-8.
;; fails in: run
;; says: utf-8
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.store8 (i32.const 1036) (i32.const 0xc0))
  (i32.const 160))
