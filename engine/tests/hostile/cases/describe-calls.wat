;; Moves traffic where it is to say who it is.
;; fails in: describe
;; says: it called the host
(func $describe (result i32)
  (call $set-weights (i32.const 192) (i32.const 2) (i32.const 512))
  (i32.const 64))
