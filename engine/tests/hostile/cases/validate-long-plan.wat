;; A plan of four million steps, all of them in its memory.
;; fails in: validate
;; says: too much
(func $validate (param i32 i32) (result i32)
  (drop (memory.grow (i32.const 1000)))
  (i32.store (i32.const 136) (i32.const 4000000))
  (i32.const 128))
