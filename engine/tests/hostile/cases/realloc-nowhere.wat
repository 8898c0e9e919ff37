;; Gives the host memory that there is not.
;; fails in: validate run
;; says: beyond end of memory
(func $realloc (param i32 i32 i32 i32) (result i32)
  (i32.const -65536))
