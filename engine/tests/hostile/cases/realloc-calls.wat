;; Calls the host while the host asks for memory.
;; fails in: validate run
;; says: leave component
(func $realloc (param i32 i32 i32 i32) (result i32)
  (call $log (i32.const 1) (i32.const 1024) (i32.const 7))
  (i32.const 65536))
