;; A trap once its answers are read.
;; fails in: describe validate run
;; says: `unreachable`
(func $after (param i32)
  unreachable)
