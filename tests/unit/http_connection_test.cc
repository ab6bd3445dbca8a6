#include "cli/http_connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cli {
namespace {

using testing::HasSubstr;

// Answers with what it was asked.
struct HttpConnectionTest : testing::Test {
  std::string receive(std::string_view bytes) {
    std::string output;
    connection.receive(bytes, output);
    return output;
  }
  std::vector<std::string> asked;
  HttpConnection connection{[this](const ControlRequest& request) {
    asked.push_back(request.method + " " + request.path + " " + request.body);
    if (request.method == "GET") return ControlResponse{200, "{}"};
    return ControlResponse{};
  }};
};

constexpr const char* kGet = "GET /stats HTTP/1.1\r\nHost: x\r\n\r\n";
constexpr const char* kOk =
    "HTTP/1.1 200 OK\r\nServer: minivmm\r\nContent-Type: application/json\r\n"
    "Content-Length: 2\r\n\r\n{}";

TEST_F(HttpConnectionTest, AnswersAndStaysOpen) {
  EXPECT_EQ(receive(kGet), kOk);
  EXPECT_THAT(asked, testing::ElementsAre("GET /stats "));
  EXPECT_FALSE(connection.closing());
  EXPECT_TRUE(connection.idle());
  EXPECT_EQ(receive(kGet), kOk);
}

TEST_F(HttpConnectionTest, ABodyMayComeInPieces) {
  std::string text = "PATCH /vm HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    EXPECT_EQ(receive(text.substr(i, 1)), "");
    EXPECT_FALSE(connection.idle());
  }
  EXPECT_EQ(receive("o"), "HTTP/1.1 204 No Content\r\nServer: minivmm\r\n\r\n");
  EXPECT_THAT(asked, testing::ElementsAre("PATCH /vm hello"));
}

TEST_F(HttpConnectionTest, RequestsMayComeTogether) {
  EXPECT_EQ(receive(std::string(kGet) + kGet + "GET"), std::string(kOk) + kOk);
  EXPECT_EQ(asked.size(), 2u);
  EXPECT_FALSE(connection.idle());
}

TEST_F(HttpConnectionTest, ClosesWhenTheClientWantsIt) {
  EXPECT_THAT(receive("GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
              HasSubstr("Connection: close\r\n"));
  EXPECT_TRUE(connection.closing());
  EXPECT_EQ(asked.size(), 1u);
}

TEST_F(HttpConnectionTest, RefusesWhatIsNoHttp) {
  for (const char* text :
       {"hello\r\n\r\n", "\x16\x03\x01\x02\r\n", "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n"}) {
    HttpConnection fresh([](const ControlRequest&) { return ControlResponse{}; });
    std::string output;
    fresh.receive(text, output);
    EXPECT_THAT(output, HasSubstr("HTTP/1.1 400 ")) << text;
    EXPECT_THAT(output, HasSubstr("fault_message")) << text;
    EXPECT_TRUE(fresh.closing());
  }
}

TEST_F(HttpConnectionTest, BoundsTheHeader) {
  std::string output = receive("GET / HTTP/1.1\r\n");
  for (int i = 0; i < 1000 && output.empty(); ++i) output = receive("X-Long: 0123456789\r\n");
  EXPECT_THAT(output, HasSubstr("HTTP/1.1 400 "));
  EXPECT_TRUE(connection.closing());
  EXPECT_TRUE(asked.empty());
}

TEST_F(HttpConnectionTest, BoundsALineWithoutEnd) {
  std::string output;
  for (int i = 0; i < 1000 && output.empty(); ++i) output = receive(std::string(100, 'G'));
  EXPECT_THAT(output, HasSubstr("HTTP/1.1 400 "));
}

TEST_F(HttpConnectionTest, BoundsTheBody) {
  EXPECT_THAT(receive("PUT /stop HTTP/1.1\r\nContent-Length: 51201\r\n\r\n"),
              HasSubstr("HTTP/1.1 413 Payload Too Large"));
  EXPECT_TRUE(connection.closing());
  EXPECT_TRUE(asked.empty());
}

TEST_F(HttpConnectionTest, BoundsAChunkedBody) {
  std::string output = receive("PUT /stop HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
  std::string chunk = "1000\r\n" + std::string(4096, 'x') + "\r\n";
  for (int i = 0; i < 20 && output.empty(); ++i) output = receive(chunk);
  EXPECT_THAT(output, HasSubstr("HTTP/1.1 413 "));
  EXPECT_TRUE(asked.empty());
}

TEST_F(HttpConnectionTest, TakesTheLargestBody) {
  std::string body(HttpConnection::kMaxBodyBytes, 'x');
  receive("PUT /stop HTTP/1.1\r\nContent-Length: 51200\r\n\r\n" + body);
  EXPECT_THAT(asked, testing::ElementsAre("PUT /stop " + body));
}

}  // namespace
}  // namespace cli
