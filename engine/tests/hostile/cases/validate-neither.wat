;; Says neither yes nor no.
;; fails in: validate
;; says: discriminant
(func $validate (param i32 i32) (result i32)
  (i32.store8 (i32.const 128) (i32.const 2))
  (i32.const 128))
