;; What takes the place of a function that a case leaves out.
(func $realloc (param i32 i32 i32 i32) (result i32)
  (local $at i32)
  ;; What was answered long ago is overwritten.
  (if (i32.gt_u (global.get $free) (i32.const 120000))
    (then (global.set $free (i32.const 65536))))
  (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
  (global.set $free (i32.add (local.get $at) (local.get 3)))
  (local.get $at))
(func $after (param i32))
(func $describe (result i32) (i32.const 64))
(func $validate (param i32 i32) (result i32) (i32.const 128))
(func $run (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 160))
