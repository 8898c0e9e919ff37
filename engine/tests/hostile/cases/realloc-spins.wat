;; An endless loop while the host asks for memory.
;; fails in: validate run
;; says: an endless loop?
(func $realloc (param i32 i32 i32 i32) (result i32)
  (loop $for-ever (br $for-ever)) unreachable)
