;; A trap in the start function.
;; fails in: describe validate run
;; says: `unreachable`
(start $start)
(func $start
  unreachable)
