;; A trap with half of the traffic on the candidate.
;; fails in: run
;; says: `unreachable`
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $set-weights (i32.const 192) (i32.const 2) (i32.const 512))
  unreachable)
