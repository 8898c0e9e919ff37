;; A trap while the host asks for memory.
;; fails in: validate run
;; says: `unreachable`
(func $realloc (param i32 i32 i32 i32) (result i32)
  unreachable)
