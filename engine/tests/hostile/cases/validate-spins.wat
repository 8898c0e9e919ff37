;; An endless loop instead of a look at the parameters.
;; fails in: validate
;; says: an endless loop?
(func $validate (param i32 i32) (result i32)
  (loop $for-ever (br $for-ever)) unreachable)
