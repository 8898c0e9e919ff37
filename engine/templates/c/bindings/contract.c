// The generated bindings want an object file that holds the contract linked in.
// The Makefile embeds the contract from its text instead, so a name will do.
void __component_type_object_force_link_strategy(void);

void __component_type_object_force_link_strategy(void)
{
}
