-- Which tenants a runtime serves.

-- `packed`: {names of tenants to serve first, names of those to serve when the first have nothing}, where {''} are all
-- others; or '' to serve all alike.
local function write_assignment(runtime, packed)
  call('DEL', ASSIGNED .. runtime, STEAL .. runtime)
  call('SREM', IDLE, runtime)
  call('SREM', IDLE_HOMES, runtime)
  if packed == '' then
    call('HDEL', HOMES, runtime)
  else
    local names = cmsgpack.unpack(packed)
    call('HSETNX', HOMES, runtime, exact(shard.virtual))
    write_all('SADD', ASSIGNED .. runtime, names[1])
    write_all('SADD', STEAL .. runtime, names[2])
  end
end
