;; Logs at a level that there is not.
;; fails in: run
;; says: discriminant
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $log (i32.const 7) (i32.const 1024) (i32.const 7))
  (i32.const 160))
