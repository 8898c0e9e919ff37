;; An outcome beyond the end of its memory.
;; fails in: run
;; says: out of bounds
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.const 0x7ffffff0))
