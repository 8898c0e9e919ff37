;; Logs for ever.
;; fails in: run
;; says: it has made 50000 calls
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (loop $for-ever
    (call $log (i32.const 0) (i32.const 1024) (i32.const 7))
    (br $for-ever))
  unreachable)
