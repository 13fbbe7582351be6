-- Repairs the index of dedicated runtimes (see homes.lua): it follows from the tenants of those that it knows.

-- @include lib/base.lua
-- @include lib/mend_steps.lua

local function forget_index(_, key)
  spend(1)
  call('UNLINK', key)
end

local function forget_indexed(_, key)
  for _, runtime in ipairs(call('SMEMBERS', key)) do
    spend(1)
    if call('HEXISTS', HOMES, runtime) == 0 then call('SREM', key, runtime) end
  end
end

local function index_in(index)
  return function(runtime, tenants_of_it)
    if call('SISMEMBER', INDEXED, runtime) == 0 then return end
    spend(#tenants_of_it)
    for _, name in ipairs(tenants_of_it) do call('SADD', index .. name, runtime) end
  end
end
local index_assigned, index_steal = index_in(ASSIGNED_TO), index_in(STOLEN_BY)
