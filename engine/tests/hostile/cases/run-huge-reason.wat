;; A reason of 62 MiB.
;; fails in: run
;; says: too much
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (drop (memory.grow (i32.const 1000)))
  (i32.store (i32.const 172) (i32.const 65000000))
  (i32.const 160))
