;; A start function that calls the host, which is not there yet.
;; fails in: describe validate run
;; says: uninitialized element
(start $start)
(func $start
  (call $log (i32.const 1) (i32.const 1024) (i32.const 7)))
