;; Logs what is no UTF-8.
;; fails in: run
;; says: utf-8
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (i32.store8 (i32.const 1024) (i32.const 0xff))
  (call $log (i32.const 1) (i32.const 1024) (i32.const 7))
  (i32.const 160))
