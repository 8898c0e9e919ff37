;; Moves traffic, and wants the answer beyond the end of its memory.
;; fails in: run
;; says: out of bounds
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $set-weights (i32.const 192) (i32.const 2) (i32.const -16))
  (i32.const 160))
