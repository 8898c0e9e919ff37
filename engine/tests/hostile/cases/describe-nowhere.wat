;; Its description lies beyond the end of its memory.
;; fails in: describe
;; says: out of bounds
(func $describe (result i32)
  (i32.const -16))
