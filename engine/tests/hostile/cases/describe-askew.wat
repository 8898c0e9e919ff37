;; Its description lies where none may begin.
;; fails in: describe
;; says: not aligned
(func $describe (result i32)
  (i32.const 66))
