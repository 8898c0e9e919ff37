;; Its name ends beyond the end of its memory.
;; fails in: describe
;; says: out of bounds
(func $describe (result i32)
  (i32.store (i32.const 68) (i32.const 0x7fffffff))
  (i32.const 64))
