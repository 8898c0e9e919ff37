;; An outcome where none may begin.
;; fails in: run
;; says: not aligned
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.const 161))
