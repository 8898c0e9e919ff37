;; A schema of 10 MiB.
;; fails in: describe
;; says: too much
(func $describe (result i32)
  (drop (memory.grow (i32.const 200)))
  (i32.store (i32.const 92) (i32.const 10485760))
  (i32.const 64))
