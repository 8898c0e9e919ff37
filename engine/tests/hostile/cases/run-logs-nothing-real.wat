;; Logs what lies beyond the end of its memory.
;; fails in: run
;; says: out of bounds
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (call $log (i32.const 1) (i32.const -8) (i32.const 100))
  (i32.const 160))
