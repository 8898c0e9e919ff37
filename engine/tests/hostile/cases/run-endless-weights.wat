;; Weights for 2^32 - 1 arms.
;; fails in: run
;; says: out of bounds
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $set-weights (i32.const 192) (i32.const -1) (i32.const 512))
  (i32.const 160))
