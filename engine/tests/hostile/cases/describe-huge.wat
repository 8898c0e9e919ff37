;; A name of 62 MiB, all of it in its memory.
;; fails in: describe
;; says: too much
(func $describe (result i32)
  (drop (memory.grow (i32.const 1000)))
  (i32.store (i32.const 64) (i32.const 1024))
  (i32.store (i32.const 68) (i32.const 65000000))
  (i32.const 64))
