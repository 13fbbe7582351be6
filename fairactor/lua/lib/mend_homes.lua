-- Repairs the index of dedicated runtimes (see homes.lua): it follows from the tenants of those that it knows.

-- @include lib/base.lua
-- @takes found from mend.lua

local function repair_index()
  for _, index in ipairs({ ASSIGNED_TO, STOLEN_BY }) do
    for _, name in ipairs(found[index]) do call('UNLINK', index .. name) end
  end
  for _, runtime in ipairs(call('SMEMBERS', INDEXED)) do
    if call('HEXISTS', HOMES, runtime) == 0 then
      call('SREM', INDEXED, runtime)
    else
      for _, name in ipairs(call('SMEMBERS', ASSIGNED .. runtime)) do call('SADD', ASSIGNED_TO .. name, runtime) end
      for _, name in ipairs(call('SMEMBERS', STEAL .. runtime)) do call('SADD', STOLEN_BY .. name, runtime) end
    end
  end
end
