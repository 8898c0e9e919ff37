;; An endless loop where it is to say who it is.
;; fails in: describe
;; says: an endless loop?
(func $describe (result i32)
  (loop $for-ever (br $for-ever)) unreachable)
