// Linux's own drivers against our devices: data goes through in both directions and is right on the
// other side.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "tests/linux/guest.h"
#include "tests/linux/sockets.h"
#include "tests/linux/vm_process.h"

namespace linux_tests {
namespace {

std::string random_bytes(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(DiskTest, HostAndGuestReadWhatTheOtherWrote) {
  Guest guest;
  std::string disk = guest.make_disk("data.img", 8 << 20);
  std::string pattern = random_bytes(1 << 20, 1);
  std::fstream(disk, std::ios::in | std::ios::out | std::ios::binary) << pattern;
  // The first MiB is copied with direct I/O to the fifth, and by buffered writes to the sixth.
  guest.script(
      "md5sum /dev/vda | cut -d' ' -f1 | sed 's/^/disk md5=/'\n"
      "dd if=/dev/vda of=/tmp/first bs=1M count=1 2>/dev/null\n"
      "md5sum /tmp/first | cut -d' ' -f1 | sed 's/^/first md5=/'\n"
      "dd if=/tmp/first of=/dev/vda bs=4096 seek=1024 oflag=direct 2>/dev/null\n"
      "dd if=/tmp/first of=/dev/vda bs=1M seek=5 conv=fsync 2>/dev/null\n"
      "echo serial=$(cat /sys/block/vda/serial) ro=$(cat /sys/block/vda/ro)\n"
      "echo sectors=$(cat /sys/block/vda/size)\n"
      "echo done\n");
  VmProcess vm(guest.run({"--disk", disk + ",serial=TEST-1234"}));
  EXPECT_TRUE(vm.expect("serial=TEST-1234 ro=0")) << vm.output();
  EXPECT_TRUE(vm.expect("sectors=16384")) << vm.output();
  EXPECT_TRUE(vm.expect("done")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();

  std::ofstream(guest.path("pattern"), std::ios::binary) << pattern;
  std::string sum = guest.path("sum");
  ASSERT_EQ(std::system(("md5sum <" + guest.path("pattern") + " >" + sum).c_str()), 0);
  EXPECT_NE(vm.output().find("first md5=" + read_file(sum).substr(0, 32)), std::string::npos)
      << vm.output();
  std::string after = read_file(disk);
  ASSERT_EQ(after.size(), size_t{8} << 20);
  EXPECT_TRUE(after.substr(0, 1 << 20) == pattern);
  EXPECT_TRUE(after.substr(4 << 20, 1 << 20) == pattern);
  EXPECT_TRUE(after.substr(5 << 20, 1 << 20) == pattern);
  EXPECT_TRUE(after.substr(1 << 20, 3 << 20) == std::string(3 << 20, '\0'));
}

TEST(DiskTest, AReadOnlyDiskStaysAsItIs) {
  Guest guest;
  std::string disk = guest.make_disk("data.img", 1 << 20);
  std::string pattern = random_bytes(1 << 20, 2);
  std::ofstream(disk, std::ios::binary) << pattern;
  guest.script(
      "echo ro=$(cat /sys/block/vda/ro)\n"
      "dd if=/dev/zero of=/dev/vda bs=4096 count=1 conv=fsync 2>&1 || echo refused\n");
  VmProcess vm(guest.run({"--disk", disk + ",ro"}));
  EXPECT_TRUE(vm.expect("ro=1")) << vm.output();
  EXPECT_TRUE(vm.expect("refused")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
  EXPECT_TRUE(read_file(disk) == pattern);
}

TEST(DiskTest, AFileSystemIsCleanAfterwards) {
  Guest guest;
  std::string disk = guest.make_disk("fs.img", 64 << 20);
  ASSERT_EQ(std::system(("mke2fs -q -t ext4 " + disk).c_str()), 0);
  guest.script(
      "modprobe ext4; mkdir -p /mnt; mount -t ext4 /dev/vda /mnt\n"
      "for i in $(seq 1 50); do head -c 100000 /dev/urandom >/mnt/file$i; done\n"
      "rm /mnt/file1?; sync; fstrim -v /mnt\n"
      "cat /mnt/file* | md5sum | cut -d' ' -f1 | sed 's/^/content /'\n"
      "umount /mnt; mount -t ext4 /dev/vda /mnt; echo 3 >/proc/sys/vm/drop_caches\n"
      "cat /mnt/file* | md5sum | cut -d' ' -f1 | sed 's/^/again /'\n"
      "umount /mnt\n");
  VmProcess vm(guest.run({"--disk", disk}));
  EXPECT_TRUE(vm.expect("script exit=0")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
  auto hash_after = [&](const std::string& word) {
    size_t at = vm.output().find(word);
    return at == std::string::npos ? word : vm.output().substr(at + word.size(), 32);
  };
  EXPECT_EQ(hash_after("content "), hash_after("again ")) << vm.output();
  EXPECT_EQ(std::system(("e2fsck -fn " + disk + " >/dev/null 2>&1").c_str()), 0);
}

TEST(DiskTest, ADiscardFreesTheHostsBlocks) {
  Guest guest;
  std::string disk = guest.make_disk("data.img", 8 << 20);
  std::ofstream(disk, std::ios::binary) << random_bytes(8 << 20, 3);
  guest.script(
      "echo granularity=$(cat /sys/block/vda/queue/discard_max_bytes)\n"
      "blkdiscard -o 1048576 -l 2097152 /dev/vda && echo discarded\n"
      "blkdiscard -z -o 4194304 -l 1048576 /dev/vda && echo zeroed\n");
  VmProcess vm(guest.run({"--disk", disk}));
  EXPECT_TRUE(vm.expect("discarded")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
  std::string after = read_file(disk);
  std::string before = random_bytes(8 << 20, 3);
  EXPECT_TRUE(after.substr(1 << 20, 2 << 20) == std::string(2 << 20, '\0'));
  EXPECT_TRUE(after.substr(0, 1 << 20) == before.substr(0, 1 << 20));
  EXPECT_TRUE(after.substr(5 << 20) == before.substr(5 << 20));
}

TEST(DiskTest, RootOnADisk) {
  Guest guest;
  std::filesystem::copy_file(
      std::filesystem::path(guest.kernel_path()).parent_path().parent_path().parent_path() /
          "disks/root.img",
      guest.path("root.img"));
  std::string data = guest.make_disk("data.img", 1 << 20);
  guest.script("grep ' / ' /proc/mounts; ls /dev/vdb && touch /written && sync\n");
  VmProcess vm(
      guest.run({"--disk", guest.path("root.img"), "--disk", data + ",ro"}, "quiet root=/dev/vda"));
  EXPECT_TRUE(vm.expect("root=/dev/vda")) << vm.output();
  EXPECT_TRUE(vm.expect("/dev/vda / ext4 rw")) << vm.output();
  EXPECT_TRUE(vm.expect("script exit=0")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
  EXPECT_EQ(std::system(("e2fsck -fn " + guest.path("root.img") + " >/dev/null 2>&1").c_str()), 0);
}

TEST(NetTest, TcpBothWaysThroughUserMode) {
  Guest guest;
  uint16_t port = 0;
  Socket listener = Socket::listen_tcp(port);
  ASSERT_TRUE(listener);
  uint16_t forwarded = Socket::free_port();
  // Out: the guest sends a MiB to a listener on the host. In: a forwarded port.
  guest.script(
      "udhcpc -i eth0 -n -q >/dev/null 2>&1; ip -4 addr show eth0 | grep -o 'inet [0-9.]*'\n"
      "head -c 1048576 /dev/urandom >/tmp/data\n"
      "md5sum </tmp/data | cut -d' ' -f1 | sed 's/^/sent /'\n"
      "nc 10.0.2.2 " +
      std::to_string(port) +
      " </tmp/data\n"
      "echo listening; nc -l -p 7000 -e cat\n");
  VmProcess vm(guest.run({"--net", "user,hostfwd=tcp::" + std::to_string(forwarded) + "-7000"}));
  ASSERT_TRUE(vm.expect("inet 10.0.2.")) << vm.output();
  Socket accepted = listener.accept();
  ASSERT_TRUE(accepted);
  std::string got = accepted.read_bytes(1 << 20);
  EXPECT_EQ(got.size(), size_t{1} << 20);
  accepted = Socket();
  std::ofstream(guest.path("got"), std::ios::binary) << got;
  ASSERT_EQ(std::system(("md5sum <" + guest.path("got") + " >" + guest.path("sum")).c_str()), 0);
  ASSERT_TRUE(vm.expect("listening")) << vm.output();
  EXPECT_NE(vm.output().find("sent " + read_file(guest.path("sum")).substr(0, 32)),
            std::string::npos)
      << vm.output();

  // The guest says that it listens just before it does.
  std::string sent = random_bytes(200'000, 4), echoed;
  for (int attempt = 0; attempt < 20 && echoed.empty(); ++attempt) {
    Socket client = Socket::connect_tcp(forwarded);
    if (!client) continue;
    std::thread sender([&] { client.send(sent); });
    echoed = client.read_bytes(sent.size());
    sender.join();
    if (echoed.empty()) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  EXPECT_TRUE(echoed == sent) << echoed.size();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
}

TEST(RngTest, FeedsTheKernelsHardwareRng) {
  Guest guest;
  guest.script(
      "cat /sys/class/misc/hw_random/rng_current\n"
      "head -c 65536 /dev/hwrng | wc -c | sed 's/^/bytes=/'\n"
      "head -c 65536 /dev/hwrng | gzip | wc -c | sed 's/^/packed=/'\n");
  VmProcess vm(guest.run({"--rng"}));
  EXPECT_TRUE(vm.expect("virtio_rng.0")) << vm.output();
  EXPECT_TRUE(vm.expect("bytes=65536")) << vm.output();
  ASSERT_TRUE(vm.expect("packed=")) << vm.output();
  EXPECT_EQ(vm.wait(), 0);
  size_t at = vm.output().find("packed=") + 7;
  EXPECT_GT(std::stoi(vm.output().substr(at)), 65000) << "random bytes do not pack";
}

TEST(ConsoleTest, VirtioConsoleCarriesTheShell) {
  Guest guest;
  VmProcess vm(guest.run({"--console", "virtio"}));
  ASSERT_TRUE(vm.expect("minivmm-init: ready")) << vm.output();
  vm.send("ls /sys/bus/virtio/drivers; echo sum=$((40 + 2)) tty=$(tty)\n");
  EXPECT_TRUE(vm.expect("sum=42")) << vm.output();
  vm.send("seq 1 20000 | md5sum\n");
  EXPECT_TRUE(vm.expect("  -")) << vm.output();
  vm.send("poweroff\n");
  EXPECT_EQ(vm.wait(), 0) << vm.output();
}

TEST(VsockTest, StreamsFromBothSides) {
  Guest guest;
  guest.script(
      "echo cid=$(vsock cid)\n"
      "echo listening; vsock echo 5000 1\n"
      "echo hello from the guest | vsock connect 2 6000 | sed 's/^/answer: /'\n");
  std::string path = guest.path("vsock");
  Socket host = Socket::listen_unix(path + "_6000");
  ASSERT_TRUE(host);
  VmProcess vm(guest.run({"--vsock", "cid=77,path=" + path}));
  ASSERT_TRUE(vm.expect("cid=77")) << vm.output();
  ASSERT_TRUE(vm.expect("listening")) << vm.output();
  std::string sent = random_bytes(1 << 20, 5), echoed;
  for (int attempt = 0; attempt < 20 && echoed.empty(); ++attempt) {
    Socket client = Socket::connect_unix(path);
    ASSERT_TRUE(client);
    client.send("CONNECT 5000\n");
    if (client.read_line().substr(0, 3) != "OK ") {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      continue;
    }
    std::thread sender([&] {
      client.send(sent);
      client.close_sending();
    });
    echoed = client.read_bytes(sent.size());
    sender.join();
  }
  EXPECT_TRUE(echoed == sent) << echoed.size();

  Socket from_guest = host.accept();
  ASSERT_TRUE(from_guest);
  EXPECT_EQ(from_guest.read_line(), "hello from the guest\n");
  from_guest.send("hello from the host\n");
  from_guest.close_sending();
  EXPECT_TRUE(vm.expect("answer: hello from the host")) << vm.output();
  EXPECT_EQ(vm.wait(), 0) << vm.output();
}

}  // namespace
}  // namespace linux_tests
