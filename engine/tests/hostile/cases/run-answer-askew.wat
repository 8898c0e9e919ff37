;; Moves traffic, and wants the answer where none may begin.
;; fails in: run
;; says: not aligned
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $set-weights (i32.const 192) (i32.const 2) (i32.const 513))
  (i32.const 160))
