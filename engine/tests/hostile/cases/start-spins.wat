;; An endless loop in the start function, before anything is asked.
;; fails in: describe validate run
;; says: an endless loop?
(start $start)
(func $start
  (loop $for-ever (br $for-ever)))
