;; Waits instead of looking at the parameters.
;; fails in: validate
;; says: it called the host
(func $validate (param i32 i32) (result i32)
  (call $wait (i32.const 60) (i32.const 0) (i32.const 0) (i32.const 512))
  (i32.const 128))
