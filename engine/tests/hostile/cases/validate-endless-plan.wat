;; A plan of 2^32 - 1 steps.
;; fails in: validate
;; says: out of bounds
(func $validate (param i32 i32) (result i32)
  (i32.store (i32.const 136) (i32.const -1))
  (i32.const 128))
