;; Waits for no time at all, for ever.
;; fails in: run
;; says: it has made 50000 calls
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (loop $for-ever
    (call $wait (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512))
    (br $for-ever))
  unreachable)
