;; An endless loop once its answers are read.
;; fails in: describe validate run
;; says: an endless loop?
(func $after (param i32)
  (loop $for-ever (br $for-ever)))
