;; A trap where it is to say who it is.
;; fails in: describe
;; says: `unreachable`
(func $describe (result i32)
  unreachable)
