;; A start function that calls itself.
;; fails in: describe validate run
;; says: its stack overflowed
(start $start)
(func $start
  (call $start))
