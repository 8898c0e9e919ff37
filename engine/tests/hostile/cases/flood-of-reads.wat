;; Asks for the health of the arms for ever.
;; fails in: run
;; says: it has made 50000 calls
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (loop $for-ever
    (call $get-health (i32.const 512))
    (br $for-ever))
  unreachable)
