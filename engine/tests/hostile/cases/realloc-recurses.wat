;; Calls itself while the host asks for memory.
;; fails in: validate run
;; says: its stack overflowed
(func $realloc (param i32 i32 i32 i32) (result i32)
  (call $realloc (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
