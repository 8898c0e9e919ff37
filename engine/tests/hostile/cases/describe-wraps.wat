;; Its name ends so far away that the sum of address and length is small again.
;; fails in: describe
;; says: out of bounds
(func $describe (result i32)
  (i32.store (i32.const 64) (i32.const -8))
  (i32.store (i32.const 68) (i32.const 16))
  (i32.const 64))
