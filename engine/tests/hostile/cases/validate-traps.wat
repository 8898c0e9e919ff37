;; A trap instead of a look at the parameters.
;; fails in: validate
;; says: `unreachable`
(func $validate (param i32 i32) (result i32)
  unreachable)
