-- Makes a script act for the kind of the runtime in ARGV[1]. It comes before the parts that read the ring.

-- @include lib/base.lua

local acts = false -- whether the server knows what the runtime can run
do
  local kind = call('HGET', KIND_OF, ARGV[1])
  if kind == shard.kind then
    acts = true
  elseif kind and shard.several and (',' .. shard.kinds .. ','):find(',' .. kind .. ',', 1, true) then
    act_for(kind)
    acts = true
  end
  if shard.compat and call('HLEN', KIND_OF) >= call('ZCARD', LEASES) then acts = false end -- all know lanes by now
end
