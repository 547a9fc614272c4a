#include "api/s3/xml.h"

#include <gtest/gtest.h>

namespace mayfly::api::s3 {
namespace {

TEST(Xml, ReadsWhatClientsSend) {
  const auto root = parse_xml(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- from a tool -->\n<s3:Delete xmlns:s3=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n"
      "<s3:Object ><s3:Key>a&amp;b &lt;&#x41;&#66;&gt; \xC3\xA9</s3:Key><VersionId/></s3:Object><Quiet>tr<!-- x -->ue</Quiet>"
      "<C><![CDATA[<raw> & ]]></C></s3:Delete>\n");
  ASSERT_TRUE(root.ok());
  EXPECT_EQ(root->name, "Delete");
  ASSERT_NE(root->find("Object"), nullptr);
  EXPECT_EQ(root->find("Object")->text_of("Key"), "a&b <AB> \xC3\xA9");
  EXPECT_NE(root->find("Object")->find("VersionId"), nullptr);
  EXPECT_EQ(root->text_of("Quiet"), "true");
  EXPECT_EQ(root->text_of("C"), "<raw> & ");
  EXPECT_EQ(root->text_of("None"), "");
}

TEST(Xml, RefusesEverythingElse) {
  for (const char* document : {"",
                               "text",
                               "<a>",
                               "<a></b>",
                               "<a/><b/>",
                               "<a/>text",
                               "<a",
                               "<a b></a>",
                               "<a b=c/>",
                               "<a b='<'/>",
                               "<a b='x'c='y'/>",
                               "</a>",
                               "<>",
                               "< a/>",
                               "<a>&nbsp;</a>",
                               "<a>&#0;</a>",
                               "<a>&#xD800;</a>",
                               "<a>&#x110000;</a>",
                               "<a>&amp</a>",
                               "<a>&#;</a>",
                               "<a>&#99999999999;</a>",
                               "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
                               "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>",
                               "<a><?php x ?></a>",
                               "<?xml version=\"1.0\"<a/>",
                               "<a><!-- -- --></a>",
                               "<a><![CDATA[x</a>",
                               "<a>\xFF</a>",
                               "<a:/>",
                               "<1a/>"}) {
    const auto root = parse_xml(document);
    ASSERT_FALSE(root.ok()) << document;
    EXPECT_EQ(root.error().id(), "MalformedXML");
  }
}

TEST(Xml, DepthAndNumberOfElementsAreLimited) {
  std::string deep = "x";
  for (int i = 0; i < 12; ++i) deep = "<a>" + deep + "</a>";
  EXPECT_TRUE(parse_xml(deep).ok());
  EXPECT_FALSE(parse_xml("<a>" + deep + "</a>").ok());
  std::string wide;
  for (int i = 0; i < 9; ++i) wide += "<b/>";
  EXPECT_TRUE(parse_xml("<a>" + wide + "</a>", {.elements_max = 10}).ok());
  EXPECT_FALSE(parse_xml("<a>" + wide + "</a>", {.elements_max = 9}).ok());
}

TEST(Xml, WhatIsWrittenIsReadBack) {
  XmlWriter xml("Root");
  xml.open("List").leaf("Key", "a<b>&\"c\" \xC3\xA9").close().leaf("Empty", "");
  xml.open("Open").leaf("Control", std::string("\r\x01", 2));
  const std::string document = xml.finish();
  EXPECT_NE(document.find("<Control>&#xd;&#x1;</Control>"), std::string::npos) << document;
  const auto root = parse_xml(document);
  ASSERT_TRUE(root.ok()) << document;
  EXPECT_EQ(root->find("List")->text_of("Key"), "a<b>&\"c\" \xC3\xA9");
  EXPECT_NE(root->find("Empty"), nullptr);
}

}  // namespace
}  // namespace mayfly::api::s3
