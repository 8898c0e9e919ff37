;; Neither an outcome nor an error.
;; fails in: run
;; says: discriminant
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.store8 (i32.const 160) (i32.const 255))
  (i32.const 160))
