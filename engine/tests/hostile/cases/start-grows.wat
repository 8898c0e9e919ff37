;; A start function that wants more memory than there is for it.
;; fails in: describe validate run
;; says: the limit is 64 MiB
(start $start)
(func $start
  (drop (memory.grow (i32.const 2000))))
