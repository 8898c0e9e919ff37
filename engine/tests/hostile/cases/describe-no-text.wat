;; A name that is no UTF-8.
;; fails in: describe
;; says: utf-8
(func $describe (result i32)
  (i32.store8 (i32.const 1024) (i32.const 0xff))
  (i32.const 64))
