;; An endless loop with half of the traffic on the candidate.
;; fails in: run
;; says: an endless loop?
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $set-weights (i32.const 192) (i32.const 2) (i32.const 512))
  (loop $for-ever (br $for-ever)) unreachable)
